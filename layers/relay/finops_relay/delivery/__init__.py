"""What a delivery is, how it is remembered, and the receipt that tells of it. Ports and pure logic: no AWS, no HTTP."""
