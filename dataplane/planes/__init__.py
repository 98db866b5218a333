"""Registry of data planes: enrolment, allocated numbers, desired state."""
