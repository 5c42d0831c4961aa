"""One deliberate defect for each promise, and the tests that must notice it.

A defect replaces a text that stands once in one file. It is applied in a copy of the tree.
"""

from dataclasses import dataclass

RELEASE = "tests/kas/test_release.py"
READER = "tests/sdk/test_reader.py"


@dataclass(frozen=True)
class Defect:
    """What is broken, how, and who must see it."""

    promise: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


DEFECTS = (
    Defect(
        "I1 no key without a record",
        "kas/envelock_kas/release.py",
        "receipt = await self._commit(context, progress)  # 10",
        "receipt = None",
        (f"{RELEASE}::TestFailClosed::test_releases_nothing_it_cannot_record",),
    ),
    Defect(
        "I1 answers follow the anchor",
        "ledger/envelock_ledger/log.py",
        "        files.anchor.append(note)\n",
        "",
        ("tests/ledger/test_crash.py::TestAnchor",),
    ),
    Defect(
        "I2 a denial is recorded before it is told",
        "kas/envelock_kas/release.py",
        "                await self._recorder.refuse(context, refused[0].reason, refused)\n",
        "",
        (f"{RELEASE}::TestDenied::test_records_a_denial_before_refusing",),
    ),
    Defect(
        "I2 a malformed request is recorded for its caller",
        "kas/envelock_kas/release.py",
        '            await self._recorder.refuse(context, f"malformed: {error}")\n',
        "",
        (f"{RELEASE}::TestDenied::test_a_malformed_request_is_recorded_for_its_caller",),
    ),
    Defect(
        "I3 what the PDP does not permit is refused",
        "kas/envelock_kas/decisions.py",
        "        if not decided.permit:\n",
        "        if False:\n",
        (f"{RELEASE}::TestDenied",),
    ),
    Defect(
        "I3 an obligation that nobody fulfils refuses",
        "kas/envelock_kas/decisions.py",
        "        if decided.obligations:\n",
        "        if False:\n",
        (RELEASE,),
    ),
    Defect(
        "I4 a decision is spent",
        "kas/envelock_kas/recorder.py",
        "            names.append(Once(name, bound_to, decision.exp))\n",
        "            names += [] and [name]\n",
        (f"{RELEASE}::TestDecisions",),
    ),
    Defect(
        "I4 a decision is for one client key",
        "formats/envelock_formats/decision.py",
        '        "key_sha256": (decision.key_sha256, b64url(key_digest)),\n',
        "",
        ("tests/formats/test_decision.py",),
    ),
    Defect(
        "I4 a decision ends",
        "formats/envelock_formats/decision.py",
        "    if now >= decision.exp or ",
        "    if ",
        ("tests/formats/test_decision.py",),
    ),
    Defect(
        "I5 a caller of another tenant needs the owner's sharing",
        "kas/envelock_kas/owner.py",
        "    if home != owner and home not in state.current.sharing:\n",
        "    if False:\n",
        (f"{RELEASE}::TestTenants",),
    ),
    Defect(
        "I5 an object asks for attributes of its owner alone",
        "kas/envelock_kas/owner.py",
        "policy.namespaces - set(state.current.namespaces)",
        "policy.namespaces & frozenset()",
        (f"{RELEASE}::TestTenants",),
    ),
    Defect(
        "I6 fences are those of the judgement",
        "kas/envelock_kas/gate.py",
        "        numbers = dict(context.judged)\n",
        "        numbers = {name: self.projection.number(name) for name in context.judged}\n",
        (f"{RELEASE}::TestStanding",),
    ),
    Defect(
        "I6 an older policy epoch releases nothing",
        "kas/envelock_kas/gate.py",
        "            numbers[policy_fence(decision.tenant)] = decision.policy.epoch\n",
        "            numbers |= {}\n",
        (f"{RELEASE}::TestStanding",),
    ),
    Defect(
        "I6 a suspended key opens nothing",
        "kas/envelock_kas/keys/registry.py",
        "        if version.state not in permitted:\n",
        "        if False:\n",
        (f"{RELEASE}::TestStanding",),
    ),
    Defect(
        "I6 the ledger holds fences against what is",
        "ledger/envelock_ledger/sequence.py",
        "            if fences.get(name, 0) != expected:\n",
        "            if False:\n",
        ("tests/ledger/test_writer.py::TestFences",),
    ),
    Defect(
        "I7 the start gate compares the root with the anchor's",
        "ledger/envelock_ledger/place.py",
        "    if tally.roots[anchored.size] != anchored.root:\n",
        "    if False:\n",
        ("tests/ledger/test_crash.py::TestAnchor",),
    ),
    Defect(
        "I8 a data key is not shown",
        "sdk/envelock/writer.py",
        "    dek: bytes = field(repr=False)  # 32 bytes: the XOR of all shares\n",
        "    dek: bytes\n",
        ("tests/sdk/test_writer.py::test_a_plan_shows_no_key",),
    ),
    Defect(
        "I9 no header says where a request is from",
        "kas/envelock_kas/http.py",
        "None if self.behind_proxy else request.remote",
        'request.headers.get("X-Forwarded-For") or request.remote',
        ("tests/kas/test_http.py::TestRewrap",),
    ),
    Defect(
        "I10 no plaintext before the root signature holds",
        "sdk/envelock/reader.py",
        "            verify_root(dek, self.manifest)\n",
        "            pass\n",
        (READER,),
    ),
    Defect(
        "I10 nothing of a bad segment",
        "formats/envelock_formats/tdf/segments.py",
        "        if not hmac.compare_digest(self._segment_hash(sealed), segment.hash):\n",
        "        if False:\n",
        (READER, "tests/formats/test_segments.py"),
    ),
    Defect(
        "the policy binding holds",
        "kas/envelock_kas/shares.py",
        "    if len(share) != SHARE_SIZE or not holds:\n",
        "    if len(share) != SHARE_SIZE:\n",
        (RELEASE,),
    ),
    Defect(
        "nothing is sealed to the public half of a KEK",
        "kas/envelock_kas/gate.py",
        "        if self.projection.registry.is_ours(der):\n",
        "        if False:\n",
        (RELEASE,),
    ),
    Defect(
        "a proof is made with the token's key",
        "service/envelock_service/dpop.py",
        "    if found != jkt:\n",
        "    if False:\n",
        ("tests/service/test_callers.py",),
    ),
    Defect(
        "a token chooses no algorithm",
        "formats/envelock_formats/jose.py",
        "    if jws.header.alg != algorithm(key):\n",
        "    if False:\n",
        ("tests/formats/test_jose.py",),
    ),
    Defect(
        "a key state is judged again when a fence has moved",
        "kas/envelock_kas/release.py",
        "                await self._gate.read_on(context, str(moved))\n",
        "",
        (f"{RELEASE}::TestStanding",),
    ),
)
