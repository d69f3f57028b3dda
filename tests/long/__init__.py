"""The long harnesses of the promises: scripts with a control that must fail, and a record in ``results``."""
