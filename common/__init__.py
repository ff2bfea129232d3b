"""What every room needs and no library gives."""
