"""Which requests a fault meets, and what faults there are."""
