"""What two runs differ in: settings, data, scores on shared items and answers; as values, and as a page."""
