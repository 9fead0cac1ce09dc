"""tega beside the bare machine and other stores, measured in one run.

::

    cli          options and the order of things
    bench        one run: sizes, running servers, progress, failures
    result       workload, contestant, sample; medians and ratios
    workloads/   what is measured: one function a family, named in one table
    systems/     the servers: how each is started, asked and read back
    client       the lean client: closed-loop conversations in one epoll loop
    httpwire     its HTTP side
    wswire       its WebSocket side
    crowd        many subscribers, in a process of their own
    ends         Python at both ends of a remote call
    bare         the bare Tornado server
    process      child processes, cores, CPU time, memory, syncs
    values       what is written: never the same twice
    table, chart, machine    the report
"""
