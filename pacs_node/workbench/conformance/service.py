"""Chapters 5 and 6: what each service does, when something is deleted, and what can be configured."""

from __future__ import annotations

from pacs_node.config import DicomDestination, FolderDestination, Settings, StowDestination
from pacs_node.delivery.backoff import Policy
from pacs_node.delivery.commitment import LINGER
from pacs_node.dicom.commitment import REASONS
from pacs_node.journey.vouch import PATIENCE
from pacs_node.records import DEFAULT_KINDS
from pacs_node.retention.policy import AHEAD, GRACE, SETTLED, TABLE, Kind, age_of, in_words
from pacs_node.workbench.conformance.facts import accepted, proposed
from pacs_node.workbench.conformance.markdown import Page
from pacs_node.workbench.conformance.overview import character_sets


def write(page: Page, settings: Settings) -> None:
    """Write chapters 5 and 6."""
    page.heading(2, "5 Service and interoperability description")
    page.heading(3, "5.1 Mapping of services to Application Entities")
    page.table(
        ("Service", "RECEIVER", "REQUESTOR", "FETCH"),
        [
            ("Verification", "SCP", "SCU", "SCP"),
            ("Storage", "SCP", "SCU", "SCP"),
            ("Storage Commitment", "SCP of requests, SCU for reports of archives", "SCU of requests, SCP for reports of ours", ""),
            ("MPPS, Instance Availability Notification", "SCP", "", ""),
            ("Query/Retrieve", "", "SCU", "SCU"),
        ],
    )
    page.heading(3, "5.2 DIMSE services")
    _announcements(page, settings)
    _storage(page, settings)
    _commitment(page, settings)
    _query(page)
    _web(page)
    page.heading(3, "5.4 Media services")
    page.text("None.")
    page.heading(3, "5.5 Real-Time Video services")
    page.text("None.")
    _deletion(page, settings)
    _characters(page)
    _configuration(page, settings)


def _announcements(page: Page, settings: Settings) -> None:
    page.heading(4, "5.2.1 Modality Performed Procedure Step and Instance Availability Notification services")
    page.text(
        f"As SCP where `reception.mpps` ({_on(settings.reception.mpps)}) and `reception.availability` ({_on(settings.reception.availability)}) say so. "
        "N-CREATE and N-SET are kept and "
        "answered; of them, the study, the referenced instances and the status are used, to tell when a study is complete. Nothing of them is stored as an "
        "object, queried or passed on. Attributes that are missing are no error."
    )


def _storage(page: Page, settings: Settings) -> None:
    page.heading(4, "5.2.5 Storage service")
    page.heading(5, "5.2.5.1 SCU of the Storage SOP Classes")
    kinds = ", ".join(DEFAULT_KINDS["dicom"])
    policy = Policy()
    page.bullets((
        f"Results go out in the order of their references, by default the kinds {kinds}; each object is built once, stored, and the stored file is sent at "
        "every try.",
        "A result is offered as Explicit VR Little Endian and, in a context of its own, as Implicit VR Little Endian. No pixel is converted. Originals go out "
        "in the transfer syntax in which they "
        "came, and in no other.",
        "A result is sent only to a destination with `accepts_research: true`; phantoms say Synthetic Data (0008,001C) YES.",
        f"After a temporary fault the wait grows from {in_words(policy.first)} to {in_words(policy.longest)} with jitter; after "
        f"{in_words(policy.give_up_after)} of waiting the object is parked, "
        "with an alert. A permanent refusal is not repeated: the `fallback` kind goes in its place where there is one, as a new instance.",
        "Where `reject_superseded` is set, a rejection note (Key Object Selection, 113001) for the results of earlier runs follows those of a re-run.",
        _heartbeat(settings),
        "Objects that this node made are recognised by Device UID (0018,1002) in Contributing Equipment Sequence (0018,A001) and never routed or forwarded "
        "again.",
    ))  # fmt: skip
    page.heading(5, "5.2.5.2 SCP of the Storage SOP Classes")
    page.text(
        "Level 2 (Full) for what is received: every element of the data set, private ones too, is kept as it came, byte by byte, and so forwarded. No element "
        "is coerced. No digital "
        "signature is checked."
    )
    page.bullets((
        "An object that was received before, with an equal data set, is a duplicate: answered with success, nothing happens.",
        "With other patient identity, results are made anew under the corrected one; with other pixels under a known SOP Instance UID it is kept aside, with "
        "an alert. Both are answered with success.",
        "Instances of one study that name different patients hold the study until a corrected instance comes or an operator frees it.",
        "Rejection notes (Key Object Selection 113001, 113037, 113038, 113039) are obeyed: what they reject is analysed no more, and results of it are "
        "reported to the operator.",
        "A study is complete when nothing came for `assembly.quiet`, when an archive's count agrees, at the release of the association, by MPPS or "
        "availability notification, "
        "or at `assembly.deadline`; then it is called partial.",
    ))  # fmt: skip


def _heartbeat(settings: Settings) -> str:
    wanted = settings.heartbeat
    if wanted is None:
        return "No heartbeat is configured: this node sends no phantoms."
    return (
        f"Heartbeat: every {in_words(wanted.every)} a phantom ({wanted.modality}, Synthetic Data (0008,001C) YES, a reserved Patient ID) is sent to RECEIVER, "
        "proposed as results are; "
        f"its results go to the destination {wanted.destination} only, a folder or one marked `test: true`."
    )


def _commitment(page: Page, settings: Settings) -> None:
    page.heading(4, "5.2.6 Storage Commitment service")
    page.heading(5, "5.2.6.1 SCU of the Storage Commitment Push Model")
    archives = [name for name, place in settings.destinations.items() if isinstance(place, DicomDestination) and place.commitment]
    page.text(
        f"For destinations with `commitment: true` (here: {', '.join(archives) or 'none'}). An object that the archive stored is asked for by N-ACTION under "
        "a new Transaction UID. "
        f"The association stays open for {LINGER:.0f} s, so that the archive may report on it; it may also open one of its own to RECEIVER, proposing the SCP "
        "role. What a report says counts "
        "whenever it comes. Without a report within `commitment_within`, the archive is queried (C-FIND, IMAGE level)."
    )
    page.table(("Failure Reason", "Meaning", "What is done"), [(f"0x{code:04X}", row.meaning, row.remedy.value) for code, row in REASONS.items()])
    page.heading(5, "5.2.6.2 SCP of the Storage Commitment Push Model")
    page.text(
        f"Turned on by `reception.commitment` ({_on(settings.reception.commitment)}). **This node commits to an instance only where it forwarded it to an "
        "archive with `commitment: true`, and only after that "
        "archive's own report.** It is no archive and commits to nothing by itself. The report is sent by N-EVENT-REPORT on a new association to the address "
        "that the request came from, at the "
        f"`port` of the sender's entry in `reception.senders`, or to the destination of its AE title. What is undecided after {in_words(PATIENCE)} is "
        "reported as failed."
    )
    page.table(
        ("Instance", "Reported as"),
        [
            ("forwarded, and committed to by the archive", "committed"),
            ("on its way to the archive, or its study is not complete yet", "not yet: the report waits"),
            ("never received", "failed, 0x0112 No such object instance"),
            ("known under another SOP class", "failed, 0x0119 Class / Instance conflict"),
            ("received, but forwarded to no archive that commits; or undecided for too long", "failed, 0x0110 Processing failure"),
        ],
    )


def _query(page: Page) -> None:
    page.heading(4, "5.2.7 Query/Retrieve service")
    page.text("As SCU of the Study Root model. No extended negotiation (relational queries, fuzzy matching) is proposed.")
    page.table(
        ("Request", "Level", "Matching keys", "Return keys", "When"),
        [
            (
                "C-FIND",
                "STUDY",
                "Study Instance UID",
                "Patient ID, Issuer of Patient ID, Patient's Name, Patient's Birth Date, Accession Number",
                "`verify_identity`, before the first object of a study goes out",
            ),
            ("C-FIND", "SERIES", "Study Instance UID", "Series Instance UID, Modality, Number of Series Related Instances", "`assembly.verify_with`"),
            ("C-FIND", "IMAGE", "Study, Series, SOP Instance UID", "SOP Class UID", "after 0x0111, and where commitment reports stay away"),
            ("C-FIND", "STUDY", "Accession Number", "Study Instance UID", "`pacs-node fetch`"),
            ("C-MOVE", "SERIES", "Study, Series Instance UID", "", "`assembly.fetch`, to RECEIVER; `pacs-node fetch`, to FETCH"),
        ],
    )


def _web(page: Page) -> None:
    page.heading(3, "5.3 DICOM Web Services")
    page.text(
        'User agent of STOW-RS (PS3.18 10.5): `POST {url}/studies` with `multipart/related; type="application/dicom"`, at most 32 objects or 64 MiB in a '
        "request, the stored bytes of each. Answers are "
        "read as DICOM JSON or XML, for each instance; what the answer leaves open is asked by QIDO-RS (`GET "
        "{url}/studies/{study}/series/{series}/instances`). Redirects are not followed. Authentication: none, "
        "Basic (RFC 7617) or Bearer (RFC 6750)."
    )


def _deletion(page: Page, settings: Settings) -> None:
    page.heading(3, "5.6 Cross-service considerations: when something is deleted")
    page.text(
        "Files go, never the database's history of what was received, made and sent. What is unfinished stays whatever its age: originals that a job, a "
        "forwarding or an open storage commitment request needs, "
        "and results that wait for a destination. While work goes well, an instance goes only after it "
        "was analysed as the rules say, and, where a rule forwards it, after the archive stored it; where that destination has `commitment: true`, after the "
        "archive "
        "committed to it. What was parked, refused or held, so that this did not happen, goes after an age of its own, and an alert says so beforehand."
    )
    retention = settings.retention
    page.table(
        ("Files", "Configured by", "Stay for", "Deleted earlier for room", "Alert before"),
        [
            (_FILES[kind], f"`retention.{row.key}`", in_words(age_of(kind, retention)), "yes" if row.yields else "no", "yes" if row.warned else "no")
            for kind, row in TABLE.items()
        ],
    )
    page.bullets((
        f"Above `retention.high_watermark` ({retention.high_watermark.number:g}{' % of the disk' if retention.high_watermark.percent else ' bytes'}) what is "
        "marked *yes* goes before its age, the oldest first, "
        f"{in_words(SETTLED)} after its last event at the soonest, until there is room.",
        f"An alert comes {in_words(AHEAD)} before files go, and in any case {in_words(GRACE)} before.",
        "A success status to C-STORE is no commitment: a sender that may delete its copy must ask for storage commitment, from this node (5.2.6.2) or from "
        "the archive.",
    ))  # fmt: skip


_FILES = {
    Kind.FINISHED: "originals of a finished study",
    Kind.UNROUTED: "originals that no rule wanted",
    Kind.HELD: "originals of a held study",
    Kind.PARKED: "originals of a study with a parked job",
    Kind.UNFORWARDED: "originals that an archive refused, or given up",
    Kind.DELIVERED: "delivered (and committed) results",
    Kind.UNDELIVERED: "results that were refused or given up",
    Kind.ASIDE: "objects in conflict, replaced ones",
    Kind.QUARANTINE: "quarantine",
}


def _characters(page: Page) -> None:
    page.heading(3, "5.7 Specific Character Sets")
    page.text(
        "Received objects keep theirs. Results carry that of the received objects; texts of ours are ISO 646, descriptions taken over are kept where the "
        "character set holds them. An object whose texts are all ISO 646 declares none. "
        "Understood for rules, identity and pages:"
    )
    page.text(", ".join(term for term, _ in character_sets()) + ".")


def _configuration(page: Page, settings: Settings) -> None:
    page.heading(2, "6 Configuration")
    page.heading(3, "6.1 General configuration parameters")
    node, reception = settings.node, settings.reception
    page.text("All of it stands in `node.yaml`; every key with its default is in `config/node.yaml` and `config/REFERENCE.md`.")
    page.table(
        ("Parameter", "Key", "Value here"),
        [
            ("Local AE titles", "`node.ae_titles`", ", ".join(node.ae_titles)),
            ("Local address and port", "`node.address`, `node.port`", f"{node.address}:{node.port}"),
            ("Local port for TLS", "`node.tls_port`", node.tls_port or "none"),
            ("Most associations", "`reception.max_associations`", reception.max_associations),
            ("Maximum PDU length received", "`reception.max_pdu`", reception.max_pdu),
            ("Largest object", "`reception.max_object`", f"{reception.max_object} bytes"),
            ("Allowed senders", "`reception.senders`", "; ".join(_sender(sender.ae_title, sender.network) for sender in reception.senders) or "any"),
            ("Refused SOP classes", "`reception.denied_sop_classes`", ", ".join(reception.denied_sop_classes) or "none"),
            ("Private SOP classes", "`reception.private_sop_classes`", ", ".join(reception.private_sop_classes) or "none"),
            ("UID root", "`node.uid_root`", node.uid_root or "2.25 (UUID-derived, PS3.5 B.2)"),
        ],
    )
    page.text(
        f"{len(accepted(settings))} abstract syntaxes are accepted and {len(proposed(settings))} presentation contexts proposed with this configuration: 7.2."
    )
    page.heading(3, "6.2 Configuration of DIMSE services: remote Application Entities")
    page.table(
        ("Destination", "AE title", "Address", "TLS", "Results", "Commitment", "Identity verified", "Fallback"),
        [
            (
                name,
                place.ae_title,
                f"{place.address}:{place.port}",
                _on(place.tls is not None),
                _on(place.accepts_research),
                _on(place.commitment),
                _on(place.verify_identity),
                _fallback(place),
            )
            for name, place in settings.destinations.items()
            if isinstance(place, DicomDestination)
        ],
    )
    page.heading(3, "6.3 Configuration of DICOM Web Services")
    page.table(
        ("Destination", "URL", "Results"),
        [(name, place.url, _on(place.accepts_research)) for name, place in settings.destinations.items() if isinstance(place, StowDestination)],
    )
    page.heading(3, "6.4 Configuration of folders")
    page.table(("Destination", "Path"), [(name, place.path) for name, place in settings.destinations.items() if isinstance(place, FolderDestination)])
    page.heading(3, "6.6 Configuration of the audit trail")
    collector = settings.audit.syslog
    where = f"to {collector.name}" if collector is not None else "nowhere"
    page.text(
        f"`audit.syslog`: DICOM audit messages are sent {where}. `audit.patient_ids`: they {'name' if settings.audit.patient_ids else 'withhold'} the Patient "
        "ID."
    )


def _fallback(place: DicomDestination) -> str:
    return ", ".join(f"{kind}: {instead}" for kind, instead in place.fallback.items()) or "none"


def _sender(title: str, network: object) -> str:
    return f"{title} from {network}" if network is not None else title


def _on(value: bool) -> str:
    return "on" if value else "off"
