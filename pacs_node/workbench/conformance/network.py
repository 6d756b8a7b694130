"""Chapters 7 and 8: associations, presentation contexts, status codes, ports and security."""

from __future__ import annotations

from collections.abc import Iterable

from pacs_node.config import Settings
from pacs_node.delivery.association import Timeouts as Outgoing
from pacs_node.delivery.stow import HTTP
from pacs_node.dicom.sop_classes import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs_node.dicom.statuses import STATUSES
from pacs_node.dicom.tls import SUITES
from pacs_node.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from pacs_node.monitoring.audit_events import EVENTS, MEANINGS
from pacs_node.reception import services
from pacs_node.reception.listener import Timeouts as Incoming
from pacs_node.results.identity import IMPLEMENTATION_CLASS_UID as OF_FILES
from pacs_node.workbench.conformance.facts import ECHO_ANSWERS, NOTE_ANSWERS, REJECTIONS, STORE_ANSWERS, Answer, accepted, proposed
from pacs_node.workbench.conformance.markdown import Page
from pacs_node.workbench.deidentify.options import BASIC, CHOSEN, CLEAN_PIXELS, CLEAN_STRUCTURED, OF_DATES

PDU_OF_REQUESTOR = 16382  # pynetdicom's, as requestor


def write(page: Page, settings: Settings) -> None:
    """Write chapters 7 and 8."""
    page.heading(2, "7 Network and media communication details")
    _general(page)
    page.heading(3, "7.2 Specifications")
    _receiver(page, settings)
    _requestor(page, settings)
    _statuses(page, settings)
    _security(page, settings)


def _general(page: Page) -> None:
    page.heading(3, "7.1 General")
    page.heading(4, "7.1.1 General association parameters")
    page.table(
        ("Name", "Value"),
        [
            ("Application Context Name", "1.2.840.10008.3.1.1.1"),
            ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
            ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
            ("Implementation Class UID in the file meta information of results", OF_FILES),
            ("Outstanding asynchronous operations", "1: the asynchronous operations window is not negotiated"),
            ("SOP Class Extended Negotiation, SOP Class Common Extended Negotiation", "not negotiated"),
            ("Network", "TCP over IPv4 or IPv6, as `node.address` and the names of destinations say"),
        ],
    )


def _receiver(page: Page, settings: Settings) -> None:
    page.heading(4, "7.2.1 RECEIVER")
    page.heading(5, "7.2.1.1 Sequencing of real-world activities")
    page.drawing(
        """
sender                          RECEIVER                         disk
  |--- A-ASSOCIATE-RQ ------------>|
  |<-- A-ASSOCIATE-AC / -RJ -------|
  |--- C-STORE-RQ, data set ------>|--- write, sync, rename, sync --->|
  |<-- C-STORE-RSP 0x0000 ---------|<---------------------------------|
  |--- A-RELEASE-RQ -------------->|--- note: the association ended ->|
"""
    )
    limits = Incoming()
    page.heading(5, "7.2.1.2 Association parameters")
    page.table(
        ("Name", "Value"),
        [
            ("Maximum PDU length received", settings.reception.max_pdu),
            ("Simultaneous associations", settings.reception.max_associations),
            ("ARTIM timeout (a whole association request)", f"{limits.associate:g} s"),
            ("Silence within a PDU", f"{limits.stall:g} s"),
            ("Silence between messages", f"{limits.idle:g} s"),
        ],
    )
    page.heading(5, "7.2.1.3 Association initiation")
    page.text("RECEIVER opens no association.")
    page.heading(5, "7.2.1.4 Association acceptance")
    page.text("An association is rejected in these cases, in this order:")
    page.table(("Result", "Source", "Reason", "When"), REJECTIONS)
    page.text(
        "Of a proposal every presentation context is accepted whose abstract syntax is in the first table and which names a transfer syntax of the second; of "
        "several, the one that the requestor "
        "names first. All others are answered *abstract-syntax-not-supported* (3), also where only the transfer syntaxes are unknown. A role of SCP that the "
        "requestor proposes "
        "is accepted where the role below is SCU, and nowhere else. The normalized services read requests in uncompressed transfer syntaxes, without deflate."
    )
    rows = [(row.name, row.uid, row.service, row.role) for row in accepted(settings)]
    page.text("Accepted abstract syntaxes:")
    page.table(("SOP Class", "SOP Class UID", "Operations", "Role"), rows)
    page.text("Accepted transfer syntaxes, for every abstract syntax:")
    page.table(("Transfer Syntax", "Transfer Syntax UID"), [(name, uid) for uid, name in TRANSFER_SYNTAXES.items()])
    names = ", ".join(services.wanted(settings)) or "none"
    page.text(f"Normalized services turned on in this configuration: {names}. User identity is neither asked for nor checked, and gets no answer.")


def _requestor(page: Page, settings: Settings) -> None:
    page.heading(4, "7.2.2 REQUESTOR")
    limits = Outgoing()
    page.heading(5, "7.2.2.1 Association parameters")
    page.table(
        ("Name", "Value"),
        [
            ("Calling AE title", settings.node.ae_titles[0]),
            ("Maximum PDU length received", PDU_OF_REQUESTOR),
            ("Simultaneous associations", "one for each destination, as a rule"),
            ("Time for the connection, the association, a response", f"{limits.connect:g} s, {limits.associate:g} s, {limits.response:g} s"),
        ],
    )
    page.heading(5, "7.2.2.2 Association initiation")
    page.text(
        "Each row with several transfer syntaxes is one presentation context. Of results, only those contexts are proposed whose kinds are about to be sent."
    )
    page.table(
        ("Activity", "SOP Class", "SOP Class UID", "Transfer Syntax UIDs", "Role"),
        [_proposal(row.activity, row.name, row.uid, row.syntaxes, row.role) for row in proposed(settings)],
    )
    page.heading(5, "7.2.2.3 Association acceptance")
    page.text(
        "REQUESTOR accepts no association. On an association that it opened for a storage commitment request it answers N-EVENT-REPORT: 0x0000, or "
        "0x0110 where the report cannot be read."
    )


def _proposal(activity: str, name: str, uid: str, syntaxes: Iterable[str], role: str) -> tuple[str, ...]:
    return (activity, name, uid or "as received", ", ".join(syntaxes) or "as received", role)


def _statuses(page: Page, settings: Settings) -> None:
    page.heading(3, "7.3 Status codes")
    page.heading(4, "7.3.1 Communication failures")
    page.text(
        "RECEIVER: an association that ends before an object is complete leaves nothing of it; what was answered before stays. REQUESTOR: no connection, a "
        "rejection, an abort and "
        "a missing answer are temporary faults of the destination; objects that were not answered are sent again, the same bytes."
    )
    page.heading(4, "7.3.2 Status codes returned by RECEIVER")
    notes = NOTE_ANSWERS if services.wanted(settings) else ()
    page.table(("Operation", "Status", "Meaning", "When"), [_answer(row) for row in (*ECHO_ANSWERS, *STORE_ANSWERS, *notes)])
    page.heading(4, "7.3.3 Status codes received by REQUESTOR for C-STORE")
    page.table(("Status", "Taken as", "Meaning"), [(_range(row.first, row.last), row.kind.value, row.meaning) for row in STATUSES])
    page.text(
        "Any other status is a temporary failure. 0x0111 (duplicate) counts as stored only where a query shows the very instance, or the destination commits "
        "to it. After 0xB000 the destination is asked whose "
        "the object is now, and an alert says so."
    )
    page.heading(4, "7.3.4 HTTP status codes received from DICOMweb servers")
    page.table(("Status", "Taken as", "Meaning"), [(_span(row.first, row.last), row.meaning.value, row.text) for row in HTTP])


def _answer(row: Answer) -> tuple[str, ...]:
    return (row.operation, f"0x{row.status:04X}", row.meaning, row.when)


def _range(first: int, last: int) -> str:
    return f"0x{first:04X}" if first == last else f"0x{first:04X} to 0x{last:04X}"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _security(page: Page, settings: Settings) -> None:
    node, tls, collector = settings.node, settings.reception.tls, settings.audit.syslog
    page.heading(2, "8 Security")
    page.heading(3, "8.1 Introduction")
    page.text("The node runs in the protected network of the site. Received objects and results lie unencrypted in its data folder: protect the disk.")
    page.heading(3, "8.2 External network requirements")
    page.text(
        "DNS where destinations are named by host. A clock that is right (NTP) for certificates and for times in results. Nothing is downloaded at run time."
    )
    page.heading(3, "8.3 TCP port configuration")
    page.table(
        ("Port", "Direction", "Use"),
        [
            (node.port, "in", "DICOM upper layer, without TLS"),
            (node.tls_port or "none", "in", "DICOM upper layer over TLS"),
            *([(collector.port, "out", f"syslog over TLS, to {collector.host}")] if collector is not None else []),
            (settings.monitoring.port, "in", f"status page, health and metrics over HTTP, on {settings.monitoring.address}"),
        ],
    )
    page.heading(3, "8.4 DICOM security profiles support")
    page.heading(4, "8.4.1 Secure Use and User Identity")
    page.text("Calling AE title and address against `reception.senders`; called AE title against `node.ae_titles`. Operators by the login of the machine.")
    page.heading(4, "8.4.2 Secure Transport Connection")
    page.text(
        f"BCP 195 RFC 9325 TLS Secure Transport Connection Profile (PS3.15 B.12), in and out. TLS 1.3, and TLS 1.2 with {', '.join(SUITES)}. "
        + ("Not configured for reception." if tls is None else f"Senders {'must show a certificate' if tls.require_client else 'need no certificate'}.")
    )
    page.heading(4, "8.4.3 Media Storage Security")
    page.text("None.")
    page.heading(4, "8.4.4 Attribute Confidentiality")
    page.text("`pacs-node export`, by PS3.15 E.1 and Table E.1-1, with De-identification Method Code Sequence (0012,0064):")
    options = [BASIC, CLEAN_PIXELS, CLEAN_STRUCTURED, *(code for _, code in CHOSEN), *OF_DATES.values()]
    page.table(("Code (DCM)", "Profile or option"), options)
    page.heading(4, "8.4.5 Digital Signature")
    page.text("None: signatures in received objects are kept and not checked, results are not signed.")
    page.heading(4, "8.4.6 Audit Trail")
    _audit_trail(page, settings)
    page.heading(3, "8.5 User Identity Negotiation support")
    page.text("None: not proposed; as acceptor, ignored and not answered.")


def _audit_trail(page: Page, settings: Settings) -> None:
    collector = settings.audit.syslog
    page.text(
        "Audit Trail Message Format Profile (PS3.15 A.5) and Audit Trail Message Transmission Profile - SYSLOG-TLS (PS3.15 A.6, RFC 5424 and RFC 5425, with "
        f"the TLS of 8.4.2). {'Not configured.' if collector is None else f'Configured, to {collector.name}.'} The trail itself is kept in the database, "
        "linked by hashes; messages are made of its rows, all of them, and sent again until the collector has read them. None is received.",
        "Structured data: `meta` with `sequenceId`, the number of the row. Extensions: an Event Type Code of the scheme 99PACSNODE, the action of the trail; "
        "details `audit row` and `audit hash` of the first participant object; the Patient ID is the word `withheld` unless `audit.patient_ids` is true, and "
        "the Patient's Name is never sent.",
    )
    rows = [(f"{event.family.value} {MEANINGS[event.family]}", action, event.code, event.outcome) for action, event in EVENTS.items()]
    page.table(("Event ID (DCM)", "Action (99PACSNODE)", "Action code", "Outcome"), sorted(rows))
