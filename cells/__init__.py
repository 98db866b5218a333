"""What a cell is: its specification, its boundary, its provisioning."""
