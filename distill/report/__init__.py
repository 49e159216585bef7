"""What a run was worth: its numbers, the verdict on the transfer, and how both are shown and kept."""

from distill.report.markdown import markdown as markdown
from distill.report.report import Cost as Cost
from distill.report.report import Latency as Latency
from distill.report.report import Outcome as Outcome
from distill.report.report import Report as Report
from distill.report.serial import from_json as from_json
from distill.report.serial import to_json as to_json
from distill.report.statistics import Flips as Flips
from distill.report.summary import Summary as Summary
from distill.report.summary import start_sentence as start_sentence
from distill.report.summary import summarise as summarise
from distill.report.terminal import render as render
from distill.report.verdict import Verdict as Verdict
from distill.report.verdict import judge as judge
