"""What all pages look like."""
