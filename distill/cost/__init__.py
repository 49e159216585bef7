"""What a model costs where it runs."""

from distill.cost.command import cost as cost
from distill.cost.rows import Row as Row
from distill.cost.rows import measure as measure
from distill.cost.subject import Given as Given
from distill.cost.subject import Subject as Subject
from distill.cost.subject import subjects as subjects
from distill.cost.ways import Way as Way
from distill.cost.ways import ready as ready
