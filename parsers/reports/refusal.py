"""Why a report is not taken. Knows nothing but the words."""


class ReportError(Exception):
    """A report that cannot be read, or must not be: says what is wrong and what would be right."""
