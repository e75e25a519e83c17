"""Questions whose answers are known: what calibrations are fitted on and quality is measured with."""
