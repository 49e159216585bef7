"""What a run was worth: its numbers, the verdict on the transfer, and how both are shown and kept."""

from distill.report.by_label import ByLabel as ByLabel
from distill.report.by_label import Estimate as Estimate
from distill.report.by_label import Gain as Gain
from distill.report.by_label import Group as Group
from distill.report.by_label import LabelQuality as LabelQuality
from distill.report.by_label import Look as Look
from distill.report.by_label import Wrong as Wrong
from distill.report.escape import clean as clean
from distill.report.markdown import markdown as markdown
from distill.report.report import ARMS as ARMS
from distill.report.report import Cost as Cost
from distill.report.report import Latency as Latency
from distill.report.report import Outcome as Outcome
from distill.report.report import Report as Report
from distill.report.serial import from_json as from_json
from distill.report.serial import to_json as to_json
from distill.report.statistics import Flips as Flips
from distill.report.statistics import Interval as Interval
from distill.report.summary import Summary as Summary
from distill.report.summary import start_sentence as start_sentence
from distill.report.summary import summarise as summarise
from distill.report.terminal import render as render
from distill.report.verdict import Verdict as Verdict
from distill.report.verdict import judge as judge
