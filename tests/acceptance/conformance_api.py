"""What a certified Kubernetes shows of its API server, admission and controllers: the tests in conformance/, on one node.

`conformance_api.py NAME…` runs the tests whose names contain one of these words.
"""

import _kube
from conformance import auth, cli, deployments, jobs, machinery, mutations, operations, quota, scheduling, services, sets

if __name__ == "__main__":
    _kube.main([jobs, sets, deployments, cli, services, scheduling, machinery, mutations, operations, quota, auth])
