"""Where a modelled training step goes, what holds it up, and what would relieve it: `profile` of `step`."""
