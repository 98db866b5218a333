"""From a push to what serves: releases, deployments, builds, replicas."""
