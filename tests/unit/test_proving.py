"""What is kept of the patches that were tried: the processes are told, not run."""

import pytest

from mlx_gemma4_patches import matrix, proofs, registry
from mlx_gemma4_patches.doctor import harm, probes, proving

# rows that are there; what is measured of them is made up
A, B, C = "mlx_lm.eos_tokens", "mlx_lm.kv_bits", "mlx_lm.max_kv_size"
CODE = {"mlx_lm.utils:f": "0" * 16}
GEMMA, OTHER = "mlx_lm e2b", "mlx_lm llama"
WRONG, RIGHT = {"faulty": True, "measured": "wrong"}, {"faulty": False, "measured": "right"}


class Machine:
    """A machine on which patches do what the test says."""

    def __init__(self):
        self.unknown = {A: CODE, B: CODE, C: CODE}
        self.stock = {A: WRONG, B: WRONG, C: WRONG}
        self.patched = {A: RIGHT, B: RIGHT, C: RIGHT}
        self.stock_says = {GEMMA: "nonsense", OTHER: "a"}
        self.harmful = lambda on: {}  # what checks say instead
        self.failing = ()  # patches that cannot be applied
        self.ended = None
        self.tried = []

    def run(self, hosts, ids, told, trial=None, modes=()):
        (mode,) = modes
        on = sorted(trial.proved) if trial else []
        if on:
            self.tried.append(on)
        found = {**self.stock, **{i: r for i, r in self.patched.items() if i in on}}
        says = {**{name: "same" for name in harm.CHECKS}, **self.stock_says}
        if mode == "patched":
            says |= self.harmful(on)
        for name, said in says.items():
            found[name] = said if isinstance(said, dict) else {"said": said}
        states = [
            {"id": i, "state": "failed" if i in self.failing else "applied", "reason": "it raised"}
            for i in on
        ]
        run = {"probes": {i: found[i] for i in ids}, "unknown": self.unknown, "hosts": {}}
        return {mode: {**run, "status": {"patches": states}, "ended": self.ended}}


@pytest.fixture
def machine(monkeypatch):
    made = Machine()
    monkeypatch.setattr(probes, "run", made.run)
    monkeypatch.setattr(proving, "find_spec", lambda host: host == "mlx_lm")
    return made


def prove():
    return proving.prove(lambda mode, what: None)


def test_all_that_hold_are_kept_with_both_measurements(machine):
    found = prove()
    assert set(found.proved) == {A, B, C}
    assert found.left_off == {}
    assert machine.tried == [[A, B, C]]
    proof = found.proved[A]
    assert (proof.stock, proof.patched, proof.targets) == ("wrong", "right", CODE)
    others = matrix.load().rows[A].distributions - {"mlx-lm"}
    assert set(proof.beside) == others
    assert proof.release == f"mlx-lm {registry.installed_versions(['mlx-lm']).get('mlx-lm')}"


def test_one_whose_fault_is_not_there_is_not_even_tried(machine):
    machine.stock[B] = {"faulty": False, "measured": "all fine"}
    machine.stock[C] = {"not_applicable": "no such model"}
    found = prove()
    assert set(found.proved) == {A}
    assert found.left_off == {B: "not needed: all fine", C: "not needed: no such model"}
    assert machine.tried == [[A]]


def test_one_that_does_not_hold_is_left_out_and_the_others_are_measured_again(machine):
    machine.patched[B] = WRONG
    machine.failing = (C,)
    found = prove()
    assert set(found.proved) == {A}
    assert found.left_off == {B: "with it: wrong", C: "it could not be applied: it raised"}
    assert machine.tried == [[A, B, C], [A]]


def test_one_whose_probe_fails_is_left_off(machine):
    machine.stock[A] = {"error": "SIGKILL"}
    machine.patched[B] = {"error": "SIGSEGV"}
    found = prove()
    assert set(found.proved) == {C}
    assert found.left_off == {A: "its probe failed: SIGKILL", B: "with it: SIGSEGV"}


def test_one_that_harms_is_found_and_left_off(machine):
    machine.harmful = lambda on: {OTHER: "b"} if B in on else {}
    found = prove()
    assert set(found.proved) == {A, C}
    assert found.left_off == {B: f"it changes what {OTHER} says"}
    assert machine.tried[-1] == [A, C]  # what is kept was measured together


def test_those_that_harm_only_together_are_left_off(machine):
    machine.harmful = lambda on: {OTHER: "b"} if len(on) > 1 else {}
    found = prove()
    assert found.proved == {}
    assert set(found.left_off) == {A, B, C}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (harm.reference(GEMMA), True),  # the patches mend what was wrong
        ("nonsense", True),  # it was so before
        ("other nonsense", False),
        ({"error": "RuntimeError"}, False),
    ],
)
def test_gemma4_says_what_transformers_says_or_what_it_said_before(machine, said, kept):
    machine.harmful = lambda on: {GEMMA: said} if on else {}
    assert bool(prove().proved) == kept


def test_a_check_that_fails_without_patches_says_nothing(machine):
    machine.stock_says[GEMMA] = {"error": "this release has no Gemma 4"}
    machine.harmful = lambda on: {GEMMA: {"error": "this release has no Gemma 4"}}
    assert set(prove().proved) == {A, B, C}


def test_one_of_which_nothing_is_there_is_left_off(machine):
    machine.unknown = {A: {"mlx_lm.utils:f": None}, B: {}}
    found = prove()
    assert found.proved == {}
    assert set(found.left_off) == {A, B}
    assert machine.tried == []


def test_where_nothing_is_off_there_is_nothing_to_do(machine):
    machine.unknown = {}
    found = prove()
    assert found.proved == found.left_off == {}


def test_a_process_that_ends_is_an_error(machine):
    machine.ended = "the process was ended by SIGKILL"
    with pytest.raises(proving.CannotTry, match="SIGKILL"):
        prove()


def test_the_trial_is_of_exactly_the_code_that_was_seen():
    claim = proofs.Proof(CODE, {}, "mlx-lm 1", "2030-01-02", "wrong", "")
    trial = proofs.NOTHING._replace(proved={A: claim})
    assert proofs.parse(proofs.plain(trial)) == trial
