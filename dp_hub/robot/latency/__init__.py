"""How late a robot sees, acts and thinks, measured on itself and written into its file."""
