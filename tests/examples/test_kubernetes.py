"""The manifest of a search on a cluster: what the chief and its workers must agree in."""

import pathlib
import subprocess

import pytest
import yaml

from tests.tools import write_mnist

FOLDER = pathlib.Path(__file__).parents[2] / "examples/kubernetes"


def manifests():
    """The specs, by kind and name."""
    documents = yaml.safe_load_all((FOLDER / "tune.yaml").read_text())
    return {(d["kind"], d["metadata"]["name"]): d["spec"] for d in documents}


def test_chief_and_workers_fit_together():
    found = manifests()
    claim = ("PersistentVolumeClaim", "tune")
    jobs = [("Job", "tune-chief"), ("Job", "tune-workers")]
    assert set(found) == {claim, ("Service", "tune-chief"), *jobs}
    chief, workers = (found[job] for job in jobs)
    pods = [job["template"]["spec"] for job in (chief, workers)]
    (a,), (b,) = (pod["containers"] for pod in pods)
    for key in ("image", "command", "volumeMounts"):
        assert a[key] == b[key]
    for pod in pods:
        assert pod["restartPolicy"] == "OnFailure"
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "tune"
    folder = a["volumeMounts"][0]["mountPath"]
    assert any(part.startswith(f"--output={folder}/") for part in a["command"])

    # Each worker has its own id, which stays when its pod is replaced.
    assert workers["completionMode"] == "Indexed"
    assert workers["completions"] == workers["parallelism"]
    names = [variable["name"] for variable in b["env"]]
    assert names.index("INDEX") < names.index("KERASTUNER_TUNER_ID")
    field = b["env"][0]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"

    of_chief, of_worker = ({v["name"]: v.get("value") for v in c["env"]} for c in (a, b))
    assert of_chief["KERASTUNER_TUNER_ID"] == "chief"
    assert of_worker["KERASTUNER_TUNER_ID"] == "tuner$(INDEX)"
    service = found["Service", "tune-chief"]
    assert of_chief["KERASTUNER_ORACLE_IP"] == "0.0.0.0"
    assert of_worker["KERASTUNER_ORACLE_IP"] == "tune-chief"
    assert service["selector"].items() <= chief["template"]["metadata"]["labels"].items()
    assert not service["selector"].items() <= workers["template"]["metadata"]["labels"].items()
    ports = {of_chief["KERASTUNER_ORACLE_PORT"], of_worker["KERASTUNER_ORACLE_PORT"]}
    assert ports == {str(service["ports"][0]["port"]), str(a["ports"][0]["containerPort"])}


def test_the_chief_downloads_what_the_workers_wait_for(tmp_path):
    commands = []
    for name in ("chief", "workers"):
        pod = manifests()["Job", f"tune-{name}"]["template"]["spec"]
        (data,), (tune,) = pod["initContainers"], pod["containers"]
        assert all(data[key] == tune[key] for key in ("image", "volumeMounts"))
        assert {"--task=pixels", "--data-dir=/shared/data"} <= set(tune["command"])
        commands.append([w.replace("/shared/data", str(tmp_path)) for w in data["command"]])
    downloads, waits = commands
    begun = tmp_path / "mnist/incomplete.ABCDEF_3.0.1"
    begun.mkdir(parents=True)
    (begun / "dataset_info.json").touch()
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(waits, timeout=1, stderr=subprocess.DEVNULL)
    write_mnist(tmp_path)
    subprocess.run(waits, timeout=10, check=True, stdout=subprocess.DEVNULL)
    # The chief, started again, finds it in the place where it would have downloaded it.
    assert downloads[:2] == ["python", "-c"]
    exec(downloads[2], {})
