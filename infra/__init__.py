"""What the platform stands on: embedded services, installation, charts, benchmarks."""
