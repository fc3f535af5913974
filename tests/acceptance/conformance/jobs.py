"""Jobs and cron jobs."""

from _kube import MERGE, STRATEGIC, Case, change, condition, container, create, delete, get, gone, ok, patch, read, replace, request, shows, until

INDEX = "$JOB_COMPLETION_INDEX"


def job(name, script, labels=None, restart="Never", template=None, **spec):
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": {**spec, "template": {"metadata": {"labels": {"job": name}}, "spec": {
        "restartPolicy": restart, "terminationGracePeriodSeconds": 0, "containers": [container(script)], **(template or {})}}}}


class Jobs(Case):
    def run_job(self, name, script, **spec):
        create(f"{self.batch}/jobs", job(name, script, **spec))
        return f"{self.batch}/jobs/{name}"

    def complete(self, path, kind="Complete", seconds=60):
        def done():
            j = read(path)
            assert condition(j, kind) == "True", j["status"]
            return j
        return until(done, seconds)

    @shows("Job should run a job to completion when tasks sometimes fail and are locally restarted")
    def test_local_restarts(self):
        volume = {"volumes": [{"name": "data", "emptyDir": {}}]}
        body = job("j", "if [ -e /data/x ]; then exit 0; fi; touch /data/x; exit 1", restart="OnFailure", template=volume, parallelism=2, completions=4, backoffLimit=20)
        body["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        create(f"{self.batch}/jobs", body)
        done = self.complete(f"{self.batch}/jobs/j", seconds=90)
        self.assertEqual((done["status"]["succeeded"], done["status"].get("ready", 0)), (4, 0))
        self.assertTrue(done["status"]["completionTime"])
        self.assertEqual(done["status"]["uncountedTerminatedPods"], {})
        self.assertEqual(condition(done, "SuccessCriteriaMet"), "True")

    @shows("Job should create pods for an Indexed job with completion indexes and specified hostname")
    def test_indexed(self):
        path = self.run_job("j", f"hostname; echo {INDEX}", completionMode="Indexed", parallelism=2, completions=4)
        done = self.complete(path)
        self.assertEqual(done["status"]["completedIndexes"], "0-3")
        pods = read(f"{self.v1}/pods")["items"]
        self.assertEqual(sorted(p["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] for p in pods), list("0123"))
        for p in pods:
            index = p["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]
            self.assertEqual(p["spec"]["hostname"], f"j-{index}")
            self.assertEqual(get(f"{self.v1}/pods/{p['metadata']['name']}/log").body.decode().split(), [f"j-{index}", index])

    @shows("Job should delete a job")
    def test_delete(self):
        path = self.run_job("j", "sleep 3600", parallelism=2, completions=4)
        until(lambda: len(self.pods()) == 2)
        delete(path)
        until(lambda: gone(path) and not self.pods())

    @shows("Job should adopt matching orphans and release non-matching pods")
    def test_adoption(self):
        self.run_job("j", "sleep 3600", parallelism=2, completions=4)
        until(lambda: read(f"{self.batch}/jobs/j")["status"].get("active") == 2)
        one = f"{self.v1}/pods/{self.pods()[0]['metadata']['name']}"
        patch(one, {"metadata": {"ownerReferences": None}})
        until(lambda: read(one)["metadata"].get("ownerReferences"))
        labels = {k: None for k in read(one)["metadata"]["labels"]}
        patch(one, {"metadata": {"labels": labels}})
        until(lambda: not read(one)["metadata"].get("ownerReferences"))

    @shows("Job should apply changes to a job status")
    def test_status(self):
        path = self.run_job("j", "sleep 3600", parallelism=1, completions=1)
        until(lambda: read(path)["status"].get("active") == 1)
        started = read(path)["status"]["startTime"]
        seen = patch(f"{path}/status", {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"conditions": [{"type": "CustomConditionType", "status": "True"}]}})
        self.assertEqual(seen["metadata"]["annotations"]["patchedstatus"], "true")
        self.assertEqual(condition(seen, "CustomConditionType"), "True")
        change(f"{path}/status", lambda j: j["status"]["conditions"].append({"type": "Another", "status": "True"}))
        self.assertEqual(condition(read(f"{path}/status"), "Another"), "True")
        self.assertEqual(read(path)["status"]["startTime"], started)

    @shows("Job should manage the lifecycle of a job")
    def test_life(self):
        create(f"{self.batch}/jobs", job("j", "true", suspend=True, parallelism=1, completions=1))
        path = f"{self.batch}/jobs/j"
        until(lambda: condition(read(path), "Suspended") == "True")
        patch(path, {"metadata": {"labels": {"of": self.ns}}}, STRATEGIC)
        change(path, lambda j: (j["spec"].update(suspend=False), j["metadata"].setdefault("annotations", {}).update(updated="true")))
        watch = self.watch(f"{self.batch}/jobs", labelSelector=f"of={self.ns}")
        self.complete(path)
        self.assertEqual(len(read("/apis/batch/v1/jobs", labelSelector=f"of={self.ns}")["items"]), 1)
        ok(request("DELETE", f"{self.batch}/jobs", {"propagationPolicy": "Background"}, labelSelector=f"of={self.ns}"))
        watch.until("DELETED")
        until(lambda: not self.pods())

    @shows("Job should allow to use the pod failure policy on exit code to fail the job early")
    def test_fail_early(self):
        policy = {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [7]}}]}
        path = self.run_job("j", "exit 7", podFailurePolicy=policy, backoffLimit=10, completions=2, parallelism=1)
        failed = self.complete(path, "Failed")
        self.assertEqual(condition(failed, "Failed", "reason"), "PodFailurePolicy")
        self.assertEqual(failed["status"]["failed"], 1)
        self.assertEqual(condition(failed, "FailureTarget"), "True")

    @shows("Job should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition")
    def test_ignored(self):
        policy = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}
        path = self.run_job("j", "sleep 3600", podFailurePolicy=policy, backoffLimit=0, completions=1, parallelism=1)
        first = until(lambda: self.pods())[0]["metadata"]["name"]
        self.running(first)
        create(f"{self.v1}/pods/{first}/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": first}})
        until(lambda: [p for p in self.pods() if p["metadata"]["name"] != first])
        seen = read(path)
        self.assertIsNone(condition(seen, "Failed"))
        self.assertEqual(seen["status"].get("failed", 0), 0)

    @shows("Job should execute all indexes despite some failing when using backoffLimitPerIndex")
    def test_limit_per_index(self):
        path = self.run_job("j", f"[ $(({INDEX} % 2)) = 1 ]", completionMode="Indexed", backoffLimitPerIndex=1, parallelism=2, completions=4, backoffLimit=100)
        failed = self.complete(path, "Failed", 90)
        self.assertEqual((failed["status"]["failedIndexes"], failed["status"]["completedIndexes"]), ("0,2", "1,3"))
        self.assertEqual((failed["status"]["failed"], failed["status"]["succeeded"]), (4, 2))
        self.assertEqual(condition(failed, "Failed", "reason"), "FailedIndexes")

    @shows("Job should mark indexes as failed when the FailIndex action is matched in podFailurePolicy")
    def test_fail_index(self):
        policy = {"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [3]}}]}
        path = self.run_job("j", f"if [ {INDEX} = 0 ]; then exit 42; fi", completionMode="Indexed", backoffLimitPerIndex=5, podFailurePolicy=policy, parallelism=2, completions=2)
        failed = self.complete(path, "Failed")
        self.assertEqual((failed["status"]["failedIndexes"], failed["status"]["completedIndexes"], failed["status"]["failed"]), ("0", "1", 1))

    @shows("Job should terminate job execution when the number of failed indexes exceeds maxFailedIndexes")
    def test_too_many_failed(self):
        path = self.run_job("j", f"if [ {INDEX} -ge 2 ]; then sleep 3600; fi; exit 1", completionMode="Indexed", backoffLimitPerIndex=0, maxFailedIndexes=1, parallelism=4, completions=4)
        failed = self.complete(path, "Failed")
        self.assertEqual(condition(failed, "Failed", "reason"), "MaxFailedIndexesExceeded")
        self.assertEqual(failed["status"].get("active", 0), 0)

    def success(self, name, rule, script):
        path = self.run_job(name, script, completionMode="Indexed", completions=3, parallelism=3, successPolicy={"rules": [rule]}, backoffLimit=10)
        done = self.complete(path)
        self.assertIn(condition(done, "SuccessCriteriaMet", "reason"), ("SuccessPolicy",))
        return done

    @shows("Job with successPolicy should succeeded when all indexes succeeded")
    def test_success_all(self):
        create(f"{self.batch}/jobs", job("all", "true", completionMode="Indexed", completions=3, parallelism=3, successPolicy={"rules": [{"succeededCount": 3}]}))
        done = self.complete(f"{self.batch}/jobs/all")
        self.assertEqual((done["status"]["completedIndexes"], done["status"]["succeeded"]), ("0-2", 3))

    @shows("Job with successPolicy succeededIndexes rule should succeeded even when some indexes remain pending")
    def test_success_indexes(self):
        done = self.success("i", {"succeededIndexes": "0"}, f"if [ {INDEX} = 0 ]; then exit 0; fi; sleep 3600")
        self.assertEqual(done["status"]["completedIndexes"], "0")
        until(lambda: read(f"{self.batch}/jobs/i")["status"].get("terminating", 0) == 0)

    @shows("Job with successPolicy succeededCount rule should succeeded even when some indexes remain pending")
    def test_success_count(self):
        done = self.success("n", {"succeededCount": 1}, f"if [ {INDEX} = 1 ]; then exit 0; fi; sleep 3600")
        self.assertEqual(done["status"]["completedIndexes"], "1")

    def test_deadline_ttl_and_back_off(self):
        failed = self.complete(self.run_job("late", "sleep 3600", activeDeadlineSeconds=1), "Failed")
        self.assertEqual(condition(failed, "Failed", "reason"), "DeadlineExceeded")
        failed = self.complete(self.run_job("bad", "false", backoffLimit=0), "Failed")
        self.assertEqual(condition(failed, "Failed", "reason"), "BackoffLimitExceeded")
        path = self.run_job("ttl", "true", ttlSecondsAfterFinished=0)
        until(lambda: gone(path))


class CronJobs(Case):
    def cron(self, name, script="sleep 3600", schedule="*/1 * * * *", **spec):
        body = {"metadata": {"name": name, "labels": {"of": self.ns}}, "spec": {"schedule": schedule, "jobTemplate": {"spec": job(name, script)["spec"]}, **spec}}
        create(f"{self.batch}/cronjobs", body)
        return f"{self.batch}/cronjobs/{name}"

    @shows("CronJob should support CronJob API operations")
    def test_operations(self):
        path = self.cron("c", schedule="0 0 1 1 *")
        watch = self.watch(f"{self.batch}/cronjobs", labelSelector=f"of={self.ns}")
        self.assertEqual(len(read("/apis/batch/v1/cronjobs", labelSelector=f"of={self.ns}")["items"]), 1)
        patch(path, {"metadata": {"annotations": {"patched": "true"}}})
        change(path, lambda c: c["metadata"]["annotations"].update(updated="true"))
        watch.until("MODIFIED", lambda c: c["metadata"]["annotations"].get("updated"))
        seen = patch(f"{path}/status", {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}})
        self.assertEqual(seen["status"]["lastScheduleTime"], "2026-01-01T00:00:00Z")
        change(f"{path}/status", lambda c: c["status"].update(lastScheduleTime="2026-01-02T00:00:00Z"))
        self.assertEqual(read(f"{path}/status")["status"]["lastScheduleTime"], "2026-01-02T00:00:00Z")
        delete(path)
        watch.until("DELETED")
        self.cron("d", schedule="0 0 1 1 *")
        ok(request("DELETE", f"{self.batch}/cronjobs", labelSelector=f"of={self.ns}"))
        self.assertEqual(read(f"{self.batch}/cronjobs")["items"], [])

    @shows("CronJob should not schedule jobs when suspended [Slow]", "CronJob should schedule multiple jobs concurrently",
           "CronJob should not schedule new jobs when ForbidConcurrent [Slow]", "CronJob should replace jobs when ReplaceConcurrent")
    def test_schedules(self):
        """All policies in the same two minutes."""
        self.cron("suspended", suspend=True)
        several, one, other = self.cron("several", concurrencyPolicy="Allow"), self.cron("one", concurrencyPolicy="Forbid"), self.cron("other", concurrencyPolicy="Replace")

        def active(path):
            return [j["name"] for j in read(path)["status"].get("active", [])]
        until(lambda: active(several) and active(one) and active(other), 75)
        first, replaced = active(one), active(other)
        self.assertEqual(len(first), 1)
        until(lambda: len(active(several)) >= 2, 75)
        until(lambda: len(active(other)) == 1 and active(other) != replaced, 10)
        self.assertEqual(active(one), first)
        jobs = [j["metadata"]["ownerReferences"][0]["name"] for j in read(f"{self.batch}/jobs")["items"] if "ownerReferences" in j["metadata"]]
        self.assertEqual((jobs.count("one"), jobs.count("other"), jobs.count("suspended")), (1, 1, 0))
        self.assertGreaterEqual(jobs.count("several"), 2)


__all__ = ["CronJobs", "Jobs"]
