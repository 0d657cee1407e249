"""The words of this program: frozen types and enums that every floor above shares."""
