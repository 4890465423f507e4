"""The stories: what happens to each kind of delivery, from input to receipt. They know no boto3 and no httpx."""
