"""What the cluster is: an immutable image, kept in a ZooKeeper-sized store."""
