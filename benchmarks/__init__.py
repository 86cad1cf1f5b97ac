"""Measurements that the product's claims rest on; each prints a table and, last, one JSON object."""
