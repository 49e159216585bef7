"""The teacher's answers on disk: asked once for each view of each example, and read from then on."""

from distill.teacher_cache.cache import Cache as Cache
from distill.teacher_cache.forms import Form as Form
from distill.teacher_cache.key import fingerprint as fingerprint
from distill.teacher_cache.key import what_changed as what_changed
from distill.teacher_cache.rows import Rows as Rows
from distill.teacher_cache.setting import TeacherCache as TeacherCache
