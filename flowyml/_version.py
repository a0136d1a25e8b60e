"""The version of the distribution; hatch reads it when it builds."""

__version__ = "1.0.0rc1"
