"""The HTTP side: endpoints, responses in every form, and the faults that break connections."""
