"""What stands in a text: tokens, numbers, days, addresses, and which texts people see as the same."""
