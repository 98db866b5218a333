"""What the data planes saw: flows, denials, logs."""
