"""What was asked for: frozen pydantic models of ``node.yaml`` and ``rules.yaml``. Nothing here is global; each room gets its section.

Every error names file, line, key and value (`pacs_node.errors.ConfigError`). Relative paths are relative to the working directory.
"""

from pacs_node.config.events import Email, Events, Silence, Webhook
from pacs_node.config.heartbeat import Heartbeat
from pacs_node.config.monitoring import Monitoring, PageAuth, PageTLS
from pacs_node.config.reading import Document, KeyPath, dotted, load_rule_list, load_settings, parse, read_yaml, shipped
from pacs_node.config.rules import Complete, Rule, RuleList
from pacs_node.config.settings import (
    AllowedSender,
    Assembly,
    Audit,
    Auth,
    Basic,
    Database,
    Destination,
    DicomDestination,
    Equipment,
    Executor,
    FolderDestination,
    Node,
    Reception,
    Retention,
    Settings,
    StowDestination,
    Syslog,
    unaskable,
)
from pacs_node.config.tls import TLS, DestinationTLS
from pacs_node.config.units import AETitle, DiskSize, Duration, Port, Section, Size, parse_duration, parse_size

__all__ = [
    "TLS",
    "AETitle",
    "AllowedSender",
    "Assembly",
    "Audit",
    "Auth",
    "Basic",
    "Complete",
    "Database",
    "Destination",
    "DestinationTLS",
    "DicomDestination",
    "DiskSize",
    "Document",
    "Duration",
    "Email",
    "Equipment",
    "Events",
    "Executor",
    "FolderDestination",
    "Heartbeat",
    "KeyPath",
    "Monitoring",
    "Node",
    "PageAuth",
    "PageTLS",
    "Port",
    "Reception",
    "Retention",
    "Rule",
    "RuleList",
    "Section",
    "Settings",
    "Silence",
    "Size",
    "StowDestination",
    "Syslog",
    "Webhook",
    "dotted",
    "load_rule_list",
    "load_settings",
    "parse",
    "parse_duration",
    "parse_size",
    "read_yaml",
    "shipped",
    "unaskable",
]
