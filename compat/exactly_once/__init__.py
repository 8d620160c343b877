"""A consume-transform-produce pipeline whose workers and broker are killed."""
