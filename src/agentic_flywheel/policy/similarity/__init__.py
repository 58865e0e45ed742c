"""When a similar question may be given a stored answer: guards, cut, budget. Pure, as all of policy."""
