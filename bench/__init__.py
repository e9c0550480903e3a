"""What measures a bundle on a device."""
