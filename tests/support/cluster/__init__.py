"""Three streaming nodes as real processes under faults: networks, disks, processes, load, checks and rounds.

Read in this order: `capabilities` (what this machine allows), `namespaces` and `link_faults`, `disks` and `damage`,
`processes`, `node`, `cluster`; then `sessions`, `publishers`, `receivers` and `load`; the pure checks `delivery_check`,
`leadership` and `calm`, and `offline`; last `faults` and `rounds`. `tools/cluster_campaign.py` runs many rounds.
"""
