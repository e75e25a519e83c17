"""The demo: several tenants ask for a proposal, and each request ends another way.  `airside demo`."""
