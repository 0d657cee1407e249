"""The domain types: frozen dataclasses and enums that every layer shares."""
