"""The STAN wire protocol: message classes, names and exact answer texts."""
