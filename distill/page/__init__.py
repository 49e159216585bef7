"""`report.html`: all that a run and its comparison found, on one page that needs no network."""

from distill.page.write import FILE as FILE
from distill.page.write import report as report
from distill.page.write import write_page as write_page
