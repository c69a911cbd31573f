"""The routes of the operator pages, under /ops/."""

from django.urls import path

from routing.ops import acts, letters, rehearse, views

app_name = "ops"

urlpatterns = [
    path("", views.cluster, name="cluster"),
    path("nodes", views.nodes, name="nodes"),
    path("nodes/<str:node_id>", views.node, name="node"),
    path("nodes/<str:node_id>/<slug:action>", acts.act_on_node, name="act-on-node"),
    path("pools", views.pool_list, name="pools"),
    path("pools/versions/<int:epoch>/<int:number>", views.version, name="version"),
    path("pools/<str:name>", views.pool, name="pool"),
    path("tasks", views.tasks, name="tasks"),
    path("tasks/<str:job_id>", views.task, name="task"),
    path("sessions", views.sessions, name="sessions"),
    path("sessions/<str:session_id>", views.session, name="session"),
    path("queues", views.queues, name="queues"),
    path("dead-letters", letters.letters, name="letters"),
    path("dead-letters/do/<slug:action>", letters.act_on_letters, name="act-on-letters"),
    path("dead-letters/<str:letter_id>", letters.letter, name="letter"),
    path("simulate", rehearse.simulate, name="simulate"),
    path("alerts", views.alerts, name="alerts"),
    path("audit", views.audit, name="audit"),
    path("do/<slug:action>", acts.act_on_cluster, name="act"),
]
