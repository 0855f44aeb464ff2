"""From tables and preferences to examples: targets, matching, steering, sentiment."""
