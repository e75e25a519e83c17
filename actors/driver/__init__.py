"""The driver: admits, places, watches, kills and takes up again; its nodes, fleet, switches and orders."""
