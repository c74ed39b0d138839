# Roles of pods on EKS, as a module of its own.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name              = "broker"
  policies          = { api = "{\"Statement\":[]}", worker = "{\"Statement\":[]}" }
  oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/0123"
}

run "by_oidc_and_for_keda" {
  module {
    source = "./modules/irsa"
  }

  variables {
    keda_operator_role_arn = "arn:aws:iam::123456789012:role/keda"
  }

  assert {
    condition = alltrue([for service, role in aws_iam_role.this : (
      jsondecode(role.assume_role_policy).Statement[0].Condition.StringEquals["oidc.eks.eu-central-1.amazonaws.com/id/0123:sub"] == "system:serviceaccount:sandbox-broker:broker-${service}"
    )])
    error_message = "Each role is of one service account in one namespace."
  }

  assert {
    condition     = length(aws_eks_pod_identity_association.this) == 0
    error_message = "Pod Identity only where it is asked for."
  }

  assert {
    condition = (
      strcontains(aws_iam_role.this["worker"].assume_role_policy, "arn:aws:iam::123456789012:role/keda")
      && !strcontains(aws_iam_role.this["api"].assume_role_policy, "arn:aws:iam::123456789012:role/keda")
    )
    error_message = "KEDA may take the worker's role, no other."
  }
}

run "pod_identity_instead" {
  module {
    source = "./modules/irsa"
  }

  variables {
    oidc_provider_arn    = null
    pod_identity_cluster = "shared"
  }

  assert {
    condition     = length(aws_eks_pod_identity_association.this) == 2 && strcontains(aws_iam_role.this["api"].assume_role_policy, "pods.eks.amazonaws.com")
    error_message = "An association for each service account."
  }
}

run "a_role_that_nobody_may_take" {
  command         = plan
  expect_failures = [var.pod_identity_cluster]

  module {
    source = "./modules/irsa"
  }

  variables {
    oidc_provider_arn = null
  }
}
