"""The header of a plan, by the name under which the lessons import it. It is read in `engine.plan_header`."""

from tutorial_utils.engine.plan_header import RTX_MAGIC as MAGIC
from tutorial_utils.engine.plan_header import PlanHeader, read

__all__ = ["MAGIC", "PlanHeader", "read"]
