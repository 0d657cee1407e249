"""What people do to a manifest between runs: plan, resolve, reject, prune, correct a cost."""
