"""The ports of `delivery`, on AWS; the only importer of boto3."""
