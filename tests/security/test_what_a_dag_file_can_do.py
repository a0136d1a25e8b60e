"""A DAG file that is imported is read, never executed: it cannot run code, leave its root, hang or fill the memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowyml.migration.airflow.model import FileModel
from flowyml.migration.airflow.reader import reading
from flowyml.migration.airflow.reader.machine import Options
from flowyml.migration.airflow.reader.reading import Found, read_file, read_files
from flowyml.migration.airflow.writer.deciding.blocks import paths_of
from tests.unit.commands import flowyml

HEAD = "import os, sys, json, re, yaml, pathlib, subprocess, importlib, itertools\nfrom airflow import DAG\n"
HEAD += "from airflow.operators.bash import BashOperator\n"
STEPS = 50_000
TAIL = "\nwith DAG('after', schedule=None):\n    BashOperator(task_id='last', bash_command='true')\n"


def _read(folder: Path, text: str, **files: str) -> FileModel:
    root = folder / "repository"
    (root / "dags").mkdir(parents=True, exist_ok=True)
    (folder / "secret.txt").write_text("the secret")
    (folder / "secret.json").write_text('{"tables": ["secret"]}')
    (folder / "outside.py").write_text("NAME = 'secret'\n")
    for name, content in files.items():
        (root / "dags" / name.replace("__", ".")).write_text(content)
    (root / "dags" / "flow.py").write_text(HEAD + text + TAIL)
    return read_file(root / "dags/flow.py", root=root, options=Options(steps=STEPS, seconds=1))


RUNS = [
    "os.system('touch PROOF')",
    "subprocess.run(['touch', 'PROOF'])",
    "subprocess.Popen('touch PROOF', shell=True)",
    "open('PROOF', 'w').write('x')",
    "pathlib.Path('PROOF').write_text('x')",
    "pathlib.Path('PROOF').touch()",
    "pathlib.Path('PROOF').open('w').write('x')",
    "os.makedirs('PROOF')",
    "exec(\"import os; os.system('touch PROOF')\")",
    "eval(\"__import__('os').system('touch PROOF')\")",
    "__import__('os').system('touch PROOF')",
    "importlib.import_module('os').system('touch PROOF')",
    "getattr(os, 'sys' + 'tem')('touch PROOF')",
    "().__class__.__base__.__subclasses__()[0]('PROOF')",
    "'{0.__class__.__init__.__globals__}'.format(os)",
    "'%s'.__class__.__mro__[1].__subclasses__()",
    "(lambda: 0).__globals__['__builtins__']['open']('PROOF', 'w')",
    "[].append.__self__.__class__.__base__",
    "yaml.load('!!python/object/apply:os.system [touch PROOF]', Loader=yaml.UnsafeLoader)",
    "yaml.unsafe_load('!!python/object/apply:os.system [touch PROOF]')",
    "json.loads('{}', object_hook=lambda _: os.system('touch PROOF'))",
    "sorted([1], key=os.system)",
    "re.sub('a', os.system, 'a')",
    "type('X', (), {'__init__': lambda self: os.system('touch PROOF')})()",
    "os.environ.__class__('PROOF')",
    "globals()['__builtins__']['eval']('1')",
]


@pytest.mark.parametrize("line", RUNS)
def test_nothing_of_it_runs(tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = tmp_path / "proof"
    monkeypatch.chdir(tmp_path)
    _read(tmp_path, f"found = {line.replace('PROOF', str(proof))}\n")
    assert not proof.exists()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["outside.py", "repository", "secret.json", "secret.txt"]


LEAKS = [
    "open('../../secret.txt').read()",
    "open('FOLDER/secret.txt').read()",
    "pathlib.Path('FOLDER/secret.txt').read_text()",
    "pathlib.Path(__file__).parent.parent.parent.joinpath('secret.txt').read_text()",
    "(pathlib.Path(__file__).resolve().parents[2] / 'secret.txt').read_text()",
    "open('link.txt').read()",
    "open(os.path.join(os.path.dirname(__file__), 'link.txt')).read()",
    "json.load(open('FOLDER/secret.json'))['tables'][0]",
    "os.listdir('FOLDER')[0]",
    "list(pathlib.Path('FOLDER').iterdir())[0].name",
    "list(pathlib.Path(__file__).parent.glob('../../*'))[0].name",
    "next(os.walk('FOLDER'))[2][0]",
    "importlib.import_module('outside').NAME",
    "importlib.import_module('...outside').NAME",
    "os.environ['FLOWYML_TEST_SECRET']",
    "os.getenv('FLOWYML_TEST_SECRET')",
    "open('/etc/hostname').read()",
    "open('/proc/self/environ').read()",
    "os.path.exists('FOLDER/secret.txt') and 'there'",
    "open('fifo').read()",
]


_opened: list[str] = []
sys.addaudithook(lambda event, given: _opened.append(str(given[0])) if event == "open" else None)


@pytest.mark.parametrize("line", LEAKS)
def test_nothing_outside_of_the_root_is_read(tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_TEST_SECRET", "secret")
    dags = tmp_path / "repository" / "dags"
    dags.mkdir(parents=True)
    (dags / "link.txt").symlink_to(tmp_path / "secret.txt")
    os.mkfifo(dags / "fifo")
    text = f"leak = {line.replace('FOLDER', str(tmp_path))}\nDAG('found_' + str(leak))\nx = DAG(f'x_{{leak}}')\n"
    file = _read(tmp_path, text)
    read = [path for path in _opened[_opened.index(str(dags / "flow.py")) + 1 :] if path.startswith(str(tmp_path))]
    assert {*read} == {str(dags / "flow.py")}
    shown = " ".join(dag.dag_id for dag in file.dags)
    assert "x_secret" not in shown
    assert "x_the" not in shown
    assert "x_there" not in shown


HANGS = [
    "while True:\n    pass",
    "x = [0]\nfor i in x:\n    x.append(i)\n    while 1: x.append(1)",
    "def f(): return f()\nf()",
    "def f(n): return f(n - 1) + f(n - 2)\nf(300)",
    "x = 'a' * 10**9",
    "x = 'a'\nfor _ in range(100): x = x + x",
    "x = [1]\nfor _ in range(100): x += x",
    "x = [1]\nfor _ in range(100): x.extend(x)",
    "x = []\nfor _ in range(60): x = [x, x]\ny = str(x)\nz = x == x",
    "x = 10 ** 10 ** 10",
    "x = 1 << 10**10",
    "x = 2\nfor _ in range(100): x = x * x",
    "x = f'{1:1000000000}'",
    "x = '%1000000000d' % 1",
    "x = '%*d' % (1000000000, 1)",
    "x = 'a'.ljust(10**10)",
    "x = 'a'.center(10**10)",
    "x = ('a' * 1000).replace('a', 'b' * 100000)",
    "x = 'x' .join(['a' * 100000] * 100000)",
    "x = 'a\\tb'.expandtabs(10**9)",
    "x = list(range(10**10))",
    "x = sum(range(10**10))",
    "x = list(itertools.product(range(10**5), repeat=5))",
    "x = list(itertools.permutations(range(30)))",
    "x = list(itertools.repeat(1))",
    "x = bytes(10**10)",
    "x = re.match('(a+)+$', 'a' * 100 + 'b')",
    "x = re.sub('a*a*a*a*a*a*b', '', 'a' * 300)",
    "x = re.match('a?' * 30 + 'a' * 30, 'a' * 30)",
    "x = re.compile('(a+)+$').match('a' * 100 + 'b')",
    "x = yaml.safe_load('[' * 5000 + ']' * 5000)",
    "x = yaml.safe_load('- ' * 5000)",
    "x = json.loads('[' * 100000 + ']' * 100000)",
    "x = int('9' * 1000000)",
    "x = {i: {j: [k for k in range(1000)] for j in range(1000)} for i in range(1000)}",
    "x = " + "+".join(["1"] * 20000),
    "x = " + "(" * 150 + "1" + ")" * 150,
    "x = " + "[" * 90 + "]" * 90,
    "x = 'x' + '{}'.format('a' * 1000) * 10**8",
    "class A:\n    def __getattr__(self, n): return self.b\n    @property\n    def b(self): return self.b\nA().b",
    "def g():\n    while True:\n        yield 1\nfor x in g(): pass",
    "x = [1] * 10**9",
    "x = {**{str(i): i for i in range(10**7)}}",
    "import flow",
    "from flow import *",
    "x = '{0[' + '0][' * 10000 + '0]}'\nx = x.format([])",
    "x = 'a'.zfill(10**10)",
    "x = round(5, -10**9)",
    "x = json.dumps([1, [2]], indent=10**9)",
    "x = list(itertools.product([1, 2], repeat=10**9))",
    "x = pathlib.Path('a')\nfor _ in range(100): x = x / x",
    "import string\nx = string.Template('$a' * 10000).substitute(a='b' * 100000)",
    "import requests\nx = 0\nfor i in range(5000):\n    if requests.get('u'): x = i\nx.y.z()",
    "eval('1 + ' * 2000 + '1')",
    "text = 'exec(text)'\nexec(text)",
    "x = type('X', (), {'__init__': lambda self: type(self)()})()",
    "import textwrap\nx = textwrap.indent('a\\n' * 100000, 'b' * 100000)",
    "import hashlib\nx = hashlib.md5()\nfor _ in range(9000): x.update(b'a' * 100000)\ny = x.hexdigest()",
    "import collections\nx = list(collections.Counter({'a': 10**12}).elements())",
    "import collections\nx = collections.deque(range(1000))\nfor _ in range(10**6): x.rotate(5)",
    "x = list(itertools.combinations_with_replacement(range(100), 50))",
    "x = list(itertools.combinations(range(3), 10**9))",
    "x = re.sub('a', lambda found: 'b' * 150000, 'a' * 300)",
    "x = '{a}'.format_map({'a': 'b' * 1000}) * 10**8",
]


BUSY = [
    "x = [1] * 200_000\nfor _ in range(150_000): x.count(2)",
    "x, y = [1] * 90_000, [1] * 90_000\nfor _ in range(150_000): x == y",
    "x, y = 'a' * 200_000, 'a' * 90_000 + 'b' + 'a' * 9_000\nfor _ in range(150_000): x.rfind(y)",
    "x = {f'k{i}': i for i in range(20_000)}\ndef f(**k): return k\nfor _ in range(150_000): f(**x)",
    "for _ in range(150_000): 0.5 in range(10**18)",
    "x = set()\nfor _ in range(150_000): x.difference_update(range(10**12))",
    "for _ in range(150_000): ''.join(range(10**9))",
    "x = collections.Counter(range(10**11))",
    "x = [1]\nx[0:1] = range(10**11)",
    "x = [i * (2**61 - 1) for i in range(20_000)]\nfor _ in range(150_000): set(x)",
    "x = [i * (2**61 - 1) for i in range(20_000)]\nfor _ in range(150_000): dict.fromkeys(x)",
    "for _ in range(150_000): list(pathlib.Path(__file__).parent.parent.rglob('*'))",
    "x = pathlib.PurePath('a' * 200)\nx.match('*a' * 60 + 'b')\nlist(pathlib.Path('many').glob('*a' * 60 + 'b'))",
    "import io\nx = '\\n' * 190_000\nfor _ in range(150_000): io.StringIO(x)",
    "import configparser\nx = configparser.ConfigParser()\nx.read_string('[a]\\nx' + ' ' * 190_000 + 'y')",
    "import configparser\nx = configparser.ConfigParser()\nx['a'] = {'b': '%%' * 9**5}\nfor _ in 'x' * 50: x['a']['b']",
    "import configparser\nx = configparser.ConfigParser()\nx.read_dict({'a': {'b': '%(' * 90_000}})",
    "import configparser as c\nx = c.RawConfigParser()\nx['a'] = {n: n for n in range(9000)}\nwhile 1: x['a'] == x",
    "import unicodedata\nx = unicodedata.normalize('NFC', 'a' + '\\u0301\\u0316' * 90_000)",
    "re.match('(a|.)' * 39 + 'b', 'a' * 60)",
    "for i in range(150_000): re.match('(a|.)' * 20 + 'b', 'a' * 60)",
    "class A: pass\n" + "class B(A): pass\nclass C(A): pass\nclass A(B, C): pass\n" * 25,
    "class A: pass\nfor _ in range(2_000):\n    class A(A): pass\nfor _ in range(150_000): A().x",
]
READING = """
import resource, sys
from pathlib import Path
from flowyml.migration.airflow.reader import reading
from flowyml.migration.airflow.reader.reading import Found, read_file, read_files
from flowyml.migration.airflow.writer.deciding.blocks import paths_of
from flowyml.migration.airflow.reader.machine import Options
resource.setrlimit(resource.RLIMIT_CPU, (6, 6))
resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000, 2_000_000_000))
file = read_file(Path(sys.argv[1]), root=Path(sys.argv[2]), options=Options(steps=300_000, seconds=1))
print(*(dag.dag_id for dag in file.dags), *(str(one) for one in file.warnings), file.reason)
"""


@pytest.mark.processes
@pytest.mark.parametrize("text", BUSY, ids=lambda text: text[:40])
def test_work_is_charged_by_the_size_of_what_it_touches(tmp_path: Path, text: str) -> None:
    """300,000 steps take well under a second; the kernel ends a process that takes six seconds of a processor."""
    root = tmp_path / "repository"
    (root / "dags" / "many").mkdir(parents=True)
    for number in range(300):
        (root / "dags" / "many" / f"{'a' * 200}{number}").touch()
    flow = root / "dags" / "flow.py"
    flow.write_text(HEAD + "import collections\n" + text + TAIL)
    done = subprocess.run([sys.executable, "-c", READING, str(flow), str(root)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "after" in done.stdout or "evaluation stopped" in done.stdout
    assert "MemoryError" not in done.stdout


CHARGED = [
    ("sum([1] * 90_000)", 100_000),
    ("max([[i, i] for i in range(5_000)])", 23_000),
    ("yaml.safe_load('b: 1\\n' * 15_000)", 20_000),
    ("list(pathlib.Path(__file__).parent.rglob('*'))", 120),
    ("re.match('a', 'a' * 150_000)", 5_000),
]


@pytest.mark.parametrize(("text", "steps"), CHARGED)
def test_what_takes_its_time_takes_its_steps(tmp_path: Path, text: str, steps: int) -> None:
    path = tmp_path / "flow.py"
    path.write_text(f"{HEAD}{text}{TAIL}")
    assert read_file(path, root=tmp_path).steps > steps


def test_a_regular_expression_that_takes_too_long_leaves_the_rest_of_the_file(tmp_path: Path) -> None:
    slow = "x = re.match('(a|.)' * 39 + 'b', 'a' * 60)\n"
    file = _read(tmp_path, "DAG(re.sub('[^a-z]+', '_', 'a b'), schedule=None)\n" + slow * 5)
    assert [dag.dag_id for dag in file.dags] == ["after"]
    assert sum("takes too long" in str(one) for one in file.warnings) == 5


MANY = [
    ("x = [BashOperator(task_id=f't{i}', bash_command='true') for i in range(20_000)]",
     "10,000 tasks and task groups in one DAG"),
    ("for i in range(60_000): DAG(f'd{i}', schedule=None)", "50,000 tasks, task groups and DAGs"),
    ("import airflow.utils.task_group as g\nx = [g.TaskGroup(f'g{i}') for i in range(2_000)]", "1,000 task groups"),
    ("x = [BashOperator(task_id=f't{i}', bash_command='true') for i in range(1_000)]\nfor y in x[:200]: y >> x[200:]",
     "100,000 edges"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "bound"), MANY, ids=[bound for _, bound in MANY])
def test_a_file_has_a_bound_of_tasks_and_edges_and_says_so(tmp_path: Path, text: str, bound: str) -> None:
    path = tmp_path / "flow.py"
    path.write_text(f"{HEAD}with DAG('d', schedule=None):\n    pass\n    " + text.replace("\n", "\n    "))
    file = read_file(path, root=tmp_path)
    assert [str(one) for one in file.warnings if f"stopped after {bound}" in str(one)]
    assert file.steps < Options().steps


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells how much a process has held")
def test_branches_of_a_long_chain_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "flow.py"
    path.write_text(
        f"{HEAD}with DAG('d', schedule=None):\n    for i in range(5_000):\n"
        "        new = BashOperator(task_id=f't{i}', bash_command='true')\n"
        "        if i: old >> new\n        old = new\n"
    )
    (dag,) = read_file(path, root=tmp_path).dags
    before = peak_of_this_process(anew=True)
    assert set(paths_of(dag, dag.tasks, {}, {}).values()) == {()}
    assert peak_of_this_process() - before < 50_000_000


def test_keys_that_yaml_merges_do_not_multiply(tmp_path: Path) -> None:
    """PyYAML from 6.0.4 on takes each of them once; before, the reader refuses them."""
    lines = [f"a0: &a0 {{{', '.join(f'k{n}: 1' for n in range(50))}}}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 20)}]}}" for n in range(1, 9)]
    before = peak_of_this_process(anew=True)
    file = _read(tmp_path, "x = yaml.safe_load(open('merges.yaml'))\n", merges__yaml="\n".join(lines))
    assert [dag.dag_id for dag in file.dags] == ["after"]
    assert peak_of_this_process() - before < 100_000_000


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells how much a process has held")
@pytest.mark.parametrize("text", HANGS, ids=lambda text: text[:40])
def test_nothing_hangs_it_or_fills_the_memory(tmp_path: Path, text: str) -> None:
    before = peak_of_this_process(anew=True)
    file = _read(tmp_path, text)
    assert file.steps <= STEPS * 1.25
    assert peak_of_this_process() - before < 300_000_000


def peak_of_this_process(*, anew: bool = False) -> int:
    """The most memory it has held, in bytes; from now on, if ``anew``. Tracing each allocation takes ten times as long.

    Source: Linux, Documentation/filesystems/proc.rst, clear_refs and VmHWM
    """
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024


def test_aliases_in_yaml_do_not_multiply(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    text = "config = yaml.safe_load(open('laughs.yaml'))\nfor one in config['a11']:\n    print(str(one))\n"
    file = _read(tmp_path, text, laughs__yaml="\n".join(lines))
    assert [dag.dag_id for dag in file.dags] == ["after"]
    assert any("too many values" in str(one) for one in file.warnings)


def test_what_settings_take_of_one_another_does_not_multiply(tmp_path: Path) -> None:
    lines = ["[bomb]", f"a0 = {'x' * 1000}"] + [f"a{n} = {f'%(a{n - 1})s' * 50}" for n in range(1, 9)]
    text = "import configparser\nsettings = configparser.ConfigParser()\nsettings.read('bomb.ini')\n"
    text += "settings.read_string(open('bomb.ini').read())\nx = settings['bomb']['a8'] + settings.get('bomb', 'a8')\n"
    before = peak_of_this_process(anew=True)
    file = _read(tmp_path, text, bomb__ini="\n".join(lines))
    assert [dag.dag_id for dag in file.dags] == ["after"]
    assert peak_of_this_process() - before < 100_000_000


def test_a_tag_in_yaml_makes_no_object(tmp_path: Path) -> None:
    file = _read(
        tmp_path,
        "config = yaml.load(open('evil.yaml'), Loader=yaml.Loader)\n",
        evil__yaml="!!python/object/apply:os.system ['touch /tmp/flowyml-proof']\n",
    )
    assert [dag.dag_id for dag in file.dags] == ["after"]
    assert not Path("/tmp/flowyml-proof").exists()


def test_an_endless_file_and_a_binary_one_have_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "dag.py"
    path.write_bytes(b"airflow dag" + b"\0" * 100)
    assert read_file(path, root=tmp_path).reason
    path.write_text("# airflow dag\n" + "x = 1\n" * 500_000)
    assert "bytes" in str(read_file(path, root=tmp_path).reason)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert read_file(path, root=tmp_path).reason


def test_hostile_names_stay_data_in_json(tmp_path: Path) -> None:
    evil = '\x1b]0;x\x07\n{"dag_id": "forged"}'
    path = tmp_path / "dag.py"
    path.write_text(f"from airflow import DAG\nwith DAG('d', tags=[{evil!r}], schedule={evil!r}):\n    pass\n")
    done = flowyml("import", "airflow", str(path), "--json")
    (line,) = done.out.splitlines()
    assert json.loads(line)["tags"] == [evil]
    assert "\x1b" not in done.out


@pytest.mark.skipif(
    sys.platform != "linux", reason="other systems have no such limits, or start processes in another way"
)
def test_a_file_that_no_other_bound_stops_ends_a_process_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the reader had a gap: one file keeps it busy, one fills its memory, one ends its process."""
    names = [f"usual{number}" for number in range(9)]
    names[2:2], names[6:6] = ["hungry", "endless"], ["ends"]
    for name in names:
        (tmp_path / f"{name}.py").write_text(HEAD + TAIL)

    def read(path: Path, **options: object) -> FileModel:
        if path.stem == "hungry":
            bytearray(1_000_000_000)
        while path.stem == "endless":
            pass
        if path.stem == "ends":
            os._exit(1)
        return read_file(path, root=tmp_path)

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    monkeypatch.setattr(reading, "read_file", read)
    monkeypatch.setattr(reading, "_SECONDS", 1)
    monkeypatch.setattr(reading, "_MEGABYTES", pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000 + 500)
    found = [Found(tmp_path / f"{name}.py", f"{name}.py") for name in names]
    files = list(read_files(found, root=tmp_path, processes=2))
    assert [file.path for file in files] == [one.shown for one in found]
    unread = {file.path: str(file.reason) for file in files if not file.dags}
    assert unread.keys() == {"hungry.py", "endless.py", "ends.py"}
    assert "MemoryError" in unread["hungry.py"]
    for name in ("endless.py", "ends.py"):
        assert unread[name] == "reading it took more than 1 s of processor time, or ended the process"
