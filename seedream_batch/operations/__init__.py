"""Operations on a manifest between runs: plan, resolve, reject, prune, correct costs."""
